"""Side by side with the engines people use, in one run; a group of cells is a file in groups/."""
