"""What a study is: the schema of a project file, and how a file becomes a checked project."""
