"""Recurrent networks that hold continuous memories: networks, the questions one asks of them, and the book's press.

Import from the modules themselves (``from slowmanifold.networks.line import bounded_line_attractor``): this file
imports nothing, so that a chapter depends on the modules it names and on no others.
"""
