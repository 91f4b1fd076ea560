//! Who subscribes to which stream, as the directory has it: on all nodes.

use std::collections::HashMap;

use super::Room;

impl Room {
    /// How many presences subscribe to each stream, those in grace among them. A stream
    /// without any is not in it.
    pub(crate) fn subscriber_counts(&self) -> HashMap<String, usize> {
        let state = self.state.read();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for stream in state.directory.entries().flat_map(|entry| &entry.record.streams) {
            match counts.get_mut(stream) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(stream.clone(), 1);
                }
            }
        }
        counts
    }
}
