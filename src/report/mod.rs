//! Renderings of a journal.
