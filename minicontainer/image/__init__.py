"""image: what a container starts from: references, the content store, layers, base images.

In lab order (04 layers and overlay, 09 registry and Dockerfile)::

    reference   busybox -> docker.io/library/busybox:latest
    config      what an image says about itself: manifest, config, their limits
    tar         the archive format: 512-byte blocks, ustar and pax headers
    layers      a layer's archive -> a directory that overlayfs can stack
    writer        each entry made below a descriptor of its parent
    parents       those descriptors
    metadata      owner, mode, times, extended attributes
    limits        what an archive may ask for
    overlay       whiteouts and opaque directories as overlayfs wants them
    merged        looking into a stack of layers without mounting it
    stream        compressed bytes in, plain bytes out, hashed on the way
    pack        a directory -> a deterministic layer archive
    blobs       files named by the digest of their bytes
    index       which images there are, under which names
    store       an OCI image layout on disk: add, resolve, tag, remove, unpack
    removal       what `docker rmi` says and refuses
    base        base images that need no network: busybox, host, debian
    tree, elf     what they are made with
"""
