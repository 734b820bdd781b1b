"""What `make` runs to turn the chapters into a book; no part of the installed package."""
