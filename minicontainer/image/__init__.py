"""image: what a container starts from: references, the content store, layers, base images.

In lab order (04 layers and overlay, 09 registry and Dockerfile)::

    reference   busybox -> docker.io/library/busybox:latest
    config      what an image says about itself: manifest, config, their limits
    store       an OCI image layout on disk; add, resolve, tag, remove
    tar         the archive format: 512-byte blocks, ustar and pax headers
    stream      compressed bytes in, plain bytes out, hashed on the way
    layers      a layer's archive -> a directory that overlayfs can stack
    merged      looking into a stack of layers without mounting it
    pack        a directory -> a deterministic layer archive
    base        base images that need no network
"""
