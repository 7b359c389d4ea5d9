"""What it costs: our own start-up against other runtimes', measured side by side. Lab 14.

stats    blocks, ratios, bootstrap intervals, noise floor: plain functions
machine  what was measured on, and how busy others kept it
place    a private place for programs that would leave things on the machine
peers    crun, runc, bubblewrap, Podman and Docker, each in such a place
kernel   a large process with threads that starts containers through the API
layers   the mount of an overlay with many layers against one
ours     our command line and API in such a place
start    the lines about starting containers
"""
