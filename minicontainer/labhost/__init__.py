"""labhost: the private toy machine in which the labs run, and the doctor who says what this machine can do.

`minicontainer.labhost.lab` opens the machine, `minicontainer.labhost.doctor` examines the real one, with the probes
of `minicontainer.labhost.probe` made in throw-away processes. Man pages: namespaces(7), user_namespaces(7).
"""
