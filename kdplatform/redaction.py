"""Removes user names and passwords from URLs that are shown, logged or written."""

import re

# A user name does not begin with a slash, so the path in `sqlite:////me@work` is not one. The match
# ends at the last @ of the word, because a password may contain `/`, `:` and `@`.
_USER_INFO = re.compile(r"(?<=://)(?!/)\S*@")
_SECRET_IN_QUERY = re.compile(
    r"([?&;](?:user(?:name)?|uid|\w*passw(?:or)?d|passphrase|pwd|\w*token|\w*secret|\w*key)=)"
    r"[^&;\s'\"]*",
    re.IGNORECASE,
)
HIDDEN = "***"


def redacted(text: str) -> str:
    """Returns a text whose URLs have no user, password or token."""
    if "=" in text:
        text = _SECRET_IN_QUERY.sub(rf"\g<1>{HIDDEN}", text)
    return _USER_INFO.sub(f"{HIDDEN}@", text) if "://" in text else text


def without_user(url: str) -> str:
    """Returns a URL for a client that sends no name and password."""
    return _USER_INFO.sub("", url)
