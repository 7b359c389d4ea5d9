"""network: how containers reach each other and the world.

Bridge, veth pairs, addresses, NAT, published ports and names will live here; a container has the loopback interface alone
until then, which the runtime brings up by itself. Labs 07 and 08.
"""
