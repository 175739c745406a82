//! Every order of save, commit, abort, heal and crash, over a model of the row and the record.
//!
//! The library code is the real one, and so is the store's contract; the database is a model, and
//! every operation on either is one atomic step. After each step no saved configuration points at
//! nothing and no secret of another is gone; when all is over, the store has what the row points at
//! and nothing else. Each rule of the protocol is then broken on purpose, and the explorer finds the
//! order in which that costs a secret.

mod explorer;
mod model;
