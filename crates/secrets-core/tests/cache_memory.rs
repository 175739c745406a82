//! What the cache takes of memory, counted by an allocator.
//!
//! One test, because the allocator counts the whole process.

#![cfg(feature = "layers")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use peak_alloc::PeakAlloc;
use secret_persistence_core::layer::{CacheOptions, Layers, Stack};
use secret_persistence_core::{Coordinate, Memory, SecretPersistenceExt, SecretValue};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MAX_BYTES: usize = 4 << 20;

#[tokio::test(start_paused = true)]
async fn the_cache_takes_no_more_memory_than_it_may() {
    for value_bytes in [8, 64, 2_000] {
        let backend = Arc::new(Memory::new());
        let options = CacheOptions::default().with_max_bytes(MAX_BYTES as u64);
        let stack = Stack::over(Arc::clone(&backend) as _).with_cache(options);
        let store = Layers::over(stack).build();
        let read = async |n: usize| {
            // The length of a real name. Nobody but the cache keeps name or value afterwards.
            let name = format!("airbyte_workspace_{n:036}_secret_{n:036}_v1");
            backend.insert(&name, SecretValue::new("x".repeat(value_bytes)));
            let coordinate = Coordinate::parse(&name).unwrap();
            drop(store.read(&coordinate).await.unwrap());
            backend.remove(&name);
        };
        read(0).await;
        let before = MEMORY.current_usage();
        for n in 1..30_000 {
            read(n).await;
        }
        // The housekeeper has been there.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let taken = MEMORY.current_usage() - before;
        println!("{taken} of {MAX_BYTES} bytes with values of {value_bytes}");
        assert!(taken <= MAX_BYTES, "{taken} with values of {value_bytes}");
        assert!(
            taken >= MAX_BYTES / 2,
            "{taken} with values of {value_bytes}"
        );
    }
}
