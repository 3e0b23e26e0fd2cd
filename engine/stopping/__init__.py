"""What ends a text: strings, regexes, going round in circles."""
