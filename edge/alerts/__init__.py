"""Who must know, and the channels that reach them."""
