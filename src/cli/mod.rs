//! The command line: one file per verb; the only module that prints, reads the environment, prompts and exits.
