"""Names and passwords of URLs, which nothing that is shown, logged or written may hold."""

import re

# A host cannot be empty before a user's name, so a path with an @ (`sqlite:////me@work`) is none.
# To the last @ of the word: a password may hold `/`, `:` and `@` itself.
_USER_INFO = re.compile(r"(?<=://)(?!/)\S*@")
_SECRET_IN_QUERY = re.compile(
    r"([?&;](?:user(?:name)?|uid|\w*passw(?:or)?d|passphrase|pwd|\w*token|\w*secret|\w*key)=)"
    r"[^&;\s'\"]*",
    re.IGNORECASE,
)
HIDDEN = "***"


def redacted(text: str) -> str:
    """Returns a text whose URLs hold neither user, password nor token."""
    if "=" in text:
        text = _SECRET_IN_QUERY.sub(rf"\g<1>{HIDDEN}", text)
    return _USER_INFO.sub(f"{HIDDEN}@", text) if "://" in text else text


def without_user(url: str) -> str:
    """Returns a URL as a client asks it that sends no name and password."""
    return _USER_INFO.sub("", url)
