"""What keys look like: the one place of the control side that says so.

The client and the program on hosts have `VENDORS` too, as they can't import this; a test holds them alike.
"""

# A live or a test key, and what follows.
PREFIX = r"hs_(?:live|test)_"
REST = r"[A-Za-z0-9_-]"
SHORTEST, LONGEST = 4, 500
# Prefixes by which vendors mark their keys, each with what has to follow.
VENDORS = (
    r"(?<![A-Za-z0-9])(?:"
    r"sk[-_](?=[\w.-]{8})|[rp]k_(?:live|test)_(?=\w{8})|gh[opsur]_(?=\w{20})|github_pat_(?=\w{20})"
    r"|glpat-(?=[\w-]{16})|xox[abeoprs]-(?=[\w-]{10})|npm_(?=\w{36})|pypi-(?=[\w-]{40})|hf_(?=\w{30})"
    r"|dop_v1_(?=\w{40})|pul-(?=[0-9a-f]{40})|AGE-SECRET-KEY-(?=\w{20})|A[KS]IA(?=[A-Z0-9]{16})"
    r"|AIza(?=[\w-]{30})|eyJ(?=[\w.-]{16})"
    r")"
)
