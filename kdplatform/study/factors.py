"""The factors by which examples of generated datasets are similar."""

# The factors that generated datasets are made from, as columns of their predictions. They are the
# feature space in which examples are similar. Other datasets have no encoder.
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
