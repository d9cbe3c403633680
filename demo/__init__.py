"""The demo: a whole plant, its gateway and its cloud on one machine, started and watched by one command.

`run.py` composes it out of `children.py` (processes that are watched), `config.py` (the packaged configuration fitted
to this machine), `broker.py` (mosquitto, or `embedded.py` without it), `pins.py` and `box.py` (what is printed).
`receiver.py` plays the chat robot that alarms are sent to; `push.py` changes the running plant.
"""
