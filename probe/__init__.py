"""The technician's tool: what is on a wire, what its registers mean, how well it answers."""
