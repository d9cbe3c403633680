"""SOUTH: from a wire to a Reading. Knows nothing of alarms, storage or people.

`registers` plans and decodes (pure), `profiles` reads the catalogue of devices, `modbus` owns buses, `mqtt_ingest` owns
the link to the broker.
"""
