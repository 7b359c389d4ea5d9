"""runtime: what runc does. An OCI bundle becomes an isolated process.

The order of the steps is the program: :mod:`~minicontainer.runtime.container` is the parent's side,
:mod:`~minicontainer.runtime.child` the child's. Each step that a lab re-creates is listed in
:mod:`~minicontainer.runtime.steps`, and a learner's function can take its place. Specification: OCI runtime-spec.
"""
