"""Seawall at the edges of other people's frameworks and clients: one thin module each, imported by its own name."""
