"""build: from a Dockerfile to an image. Lab 12.

The parser, the stages, the cache keys and the steps that run as containers will live here.
"""
