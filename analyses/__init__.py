"""Where in a model is the structure? One file for each question, each with functions that return a ``Result``.

Analyses measure; they never print, plot or train. ``figures`` draws Results, ``report`` puts everything on one page.
"""
