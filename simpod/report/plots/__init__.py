"""One function a picture: a tidy table or a result in, matplotlib Axes out."""
