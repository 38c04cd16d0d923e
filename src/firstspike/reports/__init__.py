"""Reports: a run or a sweep as one HTML file, which needs nothing else and asks the network for nothing.

write.py      from a folder to a file
facts.py      what a run was, in words
details.py    what a trained network does, as plain data: history, confusion, plane
samples.py    samples to pick, with their spikes and membranes
sweep.py      the table of a sweep
page.py       templates, scripts and data become one file
command.py    the command
assets/       our scripts and the style sheet; the scripts are put behind each other in the order of ``page.py``
"""
