"""Every HTML page and plot, and how numbers are written on them."""
