"""SMS by a 4G modem: the PDUs, the dialogue with the modem, and the channel."""
