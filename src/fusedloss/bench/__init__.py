"""The measuring room: what memory allows, the library and the frameworks, timed in turns in one run.

One concern a file: ``cases`` says what is timed, ``oracle`` whether it is right, ``ceilings`` what memory allows,
``peers`` who takes part, ``turns`` how time is taken, ``suite`` runs it all, ``report`` tells it.
"""
