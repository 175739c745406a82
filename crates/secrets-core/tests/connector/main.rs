//! Splitting, hydrating, masking and updating, over real specifications and over arbitrary ones.

mod corpus;
mod generator;
mod round_trip;
