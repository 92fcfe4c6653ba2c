//! The open handles to a site.
