//! The site file: raw shape, and the check that turns it into a site.
