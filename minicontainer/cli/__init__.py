"""cli: the docker-compatible command line.

``main`` finds the verb and turns every failure into one line and an exit status; ``verbs`` is the grammar as a table,
``flags`` the parser that reads it and ``usage`` the help made from it; ``containers``, ``run``, ``images`` and
``system`` hold the verbs themselves; ``attach`` and ``terminal`` connect the caller's terminal to a container's;
``template`` and ``text`` make what is printed. Start-up time is part of the interface (``minicontainer ps`` in four
times a bare interpreter's start), so each verb's module is imported only when that verb is used.
"""
