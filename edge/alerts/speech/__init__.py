"""Speech on the gateway's loudspeaker: recorded clips, else a synthetic voice."""
