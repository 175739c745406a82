//! Splitting, hydrating, masking and updating, over real specifications and over arbitrary ones.

// Clippy knows functions with `#[test]`; the helpers of a test binary are tests as well.
#![allow(clippy::unwrap_used)]

mod arbitrary;
mod corpus;
mod fuzz;
mod generator;
mod hostile;
mod oracle;
mod round_trip;
