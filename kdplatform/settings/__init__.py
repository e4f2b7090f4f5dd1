"""The schema of a project file, and how a file becomes a checked project."""
