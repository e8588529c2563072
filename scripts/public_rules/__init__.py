"""Every hand-written rule of some public libraries, held against autodiff by `audit`.

`sources` finds the rules in a library's files, the modules named after the libraries
say with which arguments each one is met and what is to be expected there, `report` asks
and prints. Run by scripts/audit_public.
"""
