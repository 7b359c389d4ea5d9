"""network: how containers reach each other and the world.

Bridge, veth pairs, addresses, NAT, published ports and names will live here; until then a container has the loopback
interface alone, which the runtime brings up by itself. Labs 07 and 08.
"""
