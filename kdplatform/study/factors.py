"""What examples of generated datasets are similar by."""

# The factors that generated datasets are made from, as their predictions carry them: the feature
# space in which examples are similar. No encoder is at hand for the others.
GENERATING_FACTORS = {
    "trifeature": (
        "shape",
        "color",
        "texture",
        "shape_rotation",
        "texture_rotation",
        "position_x",
        "position_y",
    )
}
