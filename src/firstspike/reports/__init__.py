"""Reports: a run or a sweep as one self-contained HTML file that makes no network requests.

write.py      from a folder to a file
facts.py      a run in words
details.py    data of the parts that follow the chosen sample: confusion, samples, plane
sweep.py      the page of a sweep
page.py       templates, scripts and data become one file
command.py    the command
assets/       scripts and style sheet; ``page.py`` lists the scripts in their order
"""
