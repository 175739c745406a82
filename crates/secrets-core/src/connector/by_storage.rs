//! Groups work by the storage that it goes to.

use std::collections::HashMap;

use super::pointer::StorageId;

/// The indices of the items of each storage, storages in the order in which they first occur.
pub(super) fn by_storage<'a>(
    items: impl Iterator<Item = Option<&'a StorageId>>,
) -> Vec<(Option<&'a StorageId>, Vec<usize>)> {
    let mut groups: Vec<(Option<&StorageId>, Vec<usize>)> = Vec::new();
    let mut index: HashMap<Option<&StorageId>, usize> = HashMap::new();
    let mut last = 0;
    for (at, storage_id) in items.enumerate() {
        // Neighbours mostly agree, and usually all do: then nothing is hashed.
        if groups.get(last).is_none_or(|(id, _)| *id != storage_id) {
            if let (1, Some((first, _))) = (groups.len(), groups.first()) {
                index.insert(*first, 0);
            }
            last = if groups.is_empty() {
                groups.push((storage_id, Vec::new()));
                0
            } else {
                *index.entry(storage_id).or_insert_with(|| {
                    groups.push((storage_id, Vec::new()));
                    groups.len() - 1
                })
            };
        }
        groups[last].1.push(at);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_the_order_of_first_occurrence() {
        let ids: Vec<StorageId> = ["a", "b"]
            .iter()
            .map(|id| StorageId::parse(id).unwrap())
            .collect();
        let (a, b) = (Some(&ids[0]), Some(&ids[1]));
        let groups = by_storage([a, a, None, b, a, None].into_iter());
        assert_eq!(
            groups,
            [(a, vec![0, 1, 4]), (None, vec![2, 5]), (b, vec![3])]
        );
        assert!(by_storage([].into_iter()).is_empty());
    }
}
