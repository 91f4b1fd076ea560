//! A host's settings with our entries put in or taken out: hooks, rules of permission, the
//! status line, the server of a project. Pure; the installer calls it.
//!
//! Whatever is not ours stays as it was, which is checked before a text is handed out.

use jsonc_parser::cst::{CstNode, CstObject, CstObjectProp};
use serde_json::{Map, Value};

use super::description::{self, SERVER};
use super::json_text::{self, JsonText, Unfit};
use super::owner::{self, Owner};

const HOOKS: &str = "hooks";
const PERMISSIONS: &str = "permissions";
const ALLOW: &str = "allow";
const STATUS_LINE: &str = "statusLine";
const SERVERS: &str = "mcpServers";

/// A settings file's text that is being changed.
pub(crate) struct Settings {
    text: JsonText,
    /// What is not ours, before.
    foreign: Value,
    changes: Vec<String>,
}

/// A text to write, and what is different in it.
#[derive(Debug)]
pub(crate) struct Edited {
    /// The whole file.
    pub(crate) text: String,
    /// Sentences; none when nothing had to change.
    pub(crate) changes: Vec<String>,
}

/// Events with our handlers as wanted, and wanted events that had others of ours.
type Cleared = (Vec<&'static str>, Vec<&'static str>);

/// What became of a wish for a place that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The entry is ours and as it should be.
    Ours,
    /// Somebody else's entry is there, and stays.
    Taken,
}

impl Settings {
    /// Takes a file's text apart.
    pub(crate) fn parse(text: &str) -> Result<Self, Unfit> {
        let text = JsonText::parse(text)?;
        let foreign = foreign_part(&text.text())?;
        Ok(Self { text, foreign, changes: Vec::new() })
    }

    /// Makes the groups of these events the only ones of ours: what is as it should be
    /// stays, older ones go, what is missing comes last in its event.
    pub(crate) fn put_hooks(&mut self, wanted: &[(&'static str, Value)]) -> Result<(), Unfit> {
        let (right, replaced) = self.clear_hooks(wanted)?;
        for (event, group) in wanted.iter().filter(|(event, _)| !right.contains(event)) {
            let hooks = json_text::object_at(self.text.object(), HOOKS)?;
            let groups = json_text::array_at(&hooks, event)?;
            groups.append(json_text::input(group));
            let was_there = replaced.contains(event);
            let change = if was_there { ": our older entry replaced" } else { " added" };
            self.changes.push(format!("hook {event}{change}"));
        }
        Ok(())
    }

    /// Takes our handlers out of every event.
    pub(crate) fn remove_hooks(&mut self) -> Result<(), Unfit> {
        self.clear_hooks(&[]).map(drop)
    }

    /// Takes out our handlers but for those that are as wanted; returns the events of
    /// these, and the wanted ones that had others.
    fn clear_hooks(&mut self, wanted: &[(&'static str, Value)]) -> Result<Cleared, Unfit> {
        let (mut right, mut replaced) = (Vec::new(), Vec::new());
        let Some(hooks) = json_text::object_in(self.text.object(), HOOKS)? else {
            return Ok((right, replaced));
        };
        let (events, mut removed) = (hooks.properties(), false);
        for property in events {
            let Some(event) = property.decoded_name() else { continue };
            // A name that is there twice is found out here.
            let Some(node) = json_text::value_in(&hooks, &event)? else { continue };
            let Some(groups) = node.as_array() else { continue };
            let own: Vec<CstNode> = groups.elements().into_iter().filter(has_ours).collect();
            let wish = wanted.iter().find(|(name, _)| *name == event);
            if let (Some((name, group)), [only]) = (wish, &own[..])
                && json_text::value_of(only) == *group
            {
                right.push(*name);
                continue;
            }
            own.iter().for_each(take_ours_from);
            match wish {
                _ if own.is_empty() => {}
                Some((name, _)) => replaced.push(*name),
                None => {
                    self.changes.push(format!("hook {event} removed"));
                    if groups.elements().is_empty() {
                        property.remove();
                        removed = true;
                    }
                }
            }
        }
        if removed && hooks.properties().is_empty() {
            json_text::remove_key(self.text.object(), HOOKS);
        }
        Ok((right, replaced))
    }

    /// Allows tools without asking.
    pub(crate) fn allow(&mut self, rules: &[String]) -> Result<(), Unfit> {
        let permissions = json_text::object_at(self.text.object(), PERMISSIONS)?;
        let allowed = json_text::array_at(&permissions, ALLOW)?;
        let there: Vec<Value> = allowed.elements().iter().map(json_text::value_of).collect();
        let is_there = |rule: &String| there.iter().any(|value| value.as_str() == Some(rule));
        for rule in rules.iter().filter(|rule| !is_there(rule)) {
            allowed.append(json_text::input(&Value::from(rule.as_str())));
            self.changes.push(format!("permission {rule} added"));
        }
        Ok(())
    }

    /// Takes these rules out again.
    pub(crate) fn disallow(&mut self, rules: &[String]) -> Result<(), Unfit> {
        let root = self.text.object();
        let Some(permissions) = json_text::object_in(root, PERMISSIONS)? else { return Ok(()) };
        let Some(allowed) = json_text::array_in(&permissions, ALLOW)? else { return Ok(()) };
        let mut removed = false;
        for element in allowed.elements() {
            let value = json_text::value_of(&element);
            if let Some(rule) = rules.iter().find(|rule| value.as_str() == Some(rule)) {
                element.remove();
                removed = true;
                self.changes.push(format!("permission {rule} removed"));
            }
        }
        if removed && allowed.elements().is_empty() {
            json_text::remove_key(&permissions, ALLOW);
            if permissions.properties().is_empty() {
                json_text::remove_key(root, PERMISSIONS);
            }
        }
        Ok(())
    }

    /// Shows our status line, unless there is another.
    pub(crate) fn put_status_line(&mut self, line: &Value) -> Result<Place, Unfit> {
        self.put_one(STATUS_LINE, line, owner::is_our_status_line, "status line")
    }

    /// Takes our status line out.
    pub(crate) fn remove_status_line(&mut self) -> Result<(), Unfit> {
        let root = self.text.object();
        let line = json_text::value_in(root, STATUS_LINE)?;
        if line.is_some_and(|line| owner::is_our_status_line(&json_text::value_of(&line))) {
            json_text::remove_key(root, STATUS_LINE);
            self.changes.push("status line removed".to_owned());
        }
        Ok(())
    }

    /// Names our server in a project's file, unless another one has the name.
    pub(crate) fn put_server(&mut self, entry: &Value) -> Result<Place, Unfit> {
        let servers = json_text::object_at(self.text.object(), SERVERS)?;
        let place = put_in(&servers, SERVER, entry, owner::is_our_server)?;
        self.note_put(place, "server claudemesh")
    }

    /// Takes our server out of a project's file.
    pub(crate) fn remove_server(&mut self) -> Result<(), Unfit> {
        let root = self.text.object();
        let Some(servers) = json_text::object_in(root, SERVERS)? else { return Ok(()) };
        let entry = json_text::value_in(&servers, SERVER)?;
        if entry.is_some_and(|entry| owner::is_our_server(&json_text::value_of(&entry))) {
            json_text::remove_key(&servers, SERVER);
            if servers.properties().is_empty() {
                json_text::remove_key(root, SERVERS);
            }
            self.changes.push("server claudemesh removed".to_owned());
        }
        Ok(())
    }

    fn put_one(
        &mut self,
        key: &str,
        wanted: &Value,
        is_ours: fn(&Value) -> bool,
        name: &str,
    ) -> Result<Place, Unfit> {
        let place = put_in(self.text.object(), key, wanted, is_ours)?;
        self.note_put(place, name)
    }

    fn note_put(&mut self, put: Put, name: &str) -> Result<Place, Unfit> {
        match put {
            Put::Taken => return Ok(Place::Taken),
            Put::AsItWas => {}
            Put::Added => self.changes.push(format!("{name} added")),
            Put::Replaced => self.changes.push(format!("{name}: our older entry replaced")),
        }
        Ok(Place::Ours)
    }

    /// The text to write. What is not ours is compared once more: a difference would be a
    /// mistake of this program, and the file stays as it is.
    pub(crate) fn finish(self) -> Result<Edited, Unfit> {
        let text = self.text.text();
        if foreign_part(&text)? != self.foreign {
            return Err(Unfit::Foreign);
        }
        Ok(Edited { text, changes: self.changes })
    }
}

/// Whether two files say the same, in the same order, but for blanks and for what is empty
/// where our part would stand. One with something of ours says nothing else.
pub(crate) fn says_the_same(one: &str, other: &str) -> bool {
    match (bare(one), bare(other)) {
        (Ok(one), Ok(other)) => one.is_some() && one == other,
        _ => false,
    }
}

/// A file's words without blanks and empty places; none if something in it is ours.
fn bare(text: &str) -> Result<Option<String>, Unfit> {
    let mut settings = Settings::parse(text)?;
    settings.remove_hooks()?;
    settings.remove_status_line()?;
    settings.remove_server()?;
    settings.disallow(&description::rules())?;
    if !settings.changes.is_empty() {
        return Ok(None);
    }
    let root = settings.text.object();
    for (outer, inner) in [(HOOKS, None), (PERMISSIONS, Some(ALLOW)), (SERVERS, None)] {
        let Some(object) = json_text::object_in(root, outer)? else { continue };
        for property in object.properties() {
            let is_place =
                inner.is_none_or(|name| property.decoded_name().as_deref() == Some(name));
            let list = property.value().and_then(|value| value.as_array());
            if is_place && list.is_some_and(|list| list.elements().is_empty()) {
                property.remove();
            }
        }
        if object.properties().is_empty() {
            json_text::remove_key(root, outer);
        }
    }
    Ok(Some(json_text::without_blanks(&settings.text.text())))
}

/// What putting an entry did.
enum Put {
    Taken,
    AsItWas,
    Added,
    Replaced,
}

fn put_in(
    object: &CstObject,
    key: &str,
    wanted: &Value,
    is_ours: fn(&Value) -> bool,
) -> Result<Put, Unfit> {
    let Some(node) = json_text::value_in(object, key)? else {
        object.append(key, json_text::input(wanted));
        return Ok(Put::Added);
    };
    let there = json_text::value_of(&node);
    if !is_ours(&there) {
        return Ok(Put::Taken);
    }
    if there == *wanted {
        return Ok(Put::AsItWas);
    }
    let set = |property: CstObjectProp| property.set_value(json_text::input(wanted));
    object.get(key).map(set);
    Ok(Put::Replaced)
}

fn has_ours(group: &CstNode) -> bool {
    handlers_of(group).iter().any(is_ours)
}

fn handlers_of(group: &CstNode) -> Vec<CstNode> {
    let handlers = group.as_object().and_then(|group| group.array_value(HOOKS));
    handlers.map(|handlers| handlers.elements()).unwrap_or_default()
}

fn is_ours(handler: &CstNode) -> bool {
    owner::of_handler(&json_text::value_of(handler)) == Owner::Ours
}

/// Takes our handlers out of a group, and the group too if nothing is left in it.
fn take_ours_from(group: &CstNode) {
    for handler in handlers_of(group).into_iter().filter(is_ours) {
        handler.remove();
    }
    if handlers_of(group).is_empty() {
        group.clone().remove();
    }
}

/// Every handler of a settings file, with its event.
pub(crate) fn handlers(settings: &Value) -> Vec<(String, Value)> {
    let Some(events) = settings.get(HOOKS).and_then(Value::as_object) else { return Vec::new() };
    let of_event = |(event, groups): (&String, &Value)| {
        let groups = groups.as_array().cloned().unwrap_or_default();
        let handlers = groups.into_iter().filter_map(|group| group.get(HOOKS)?.as_array().cloned());
        handlers.flatten().map(|handler| (event.clone(), handler)).collect::<Vec<_>>()
    };
    events.iter().flat_map(of_event).collect()
}

/// What a file says without our part, and without what is empty for want of it.
fn foreign_part(text: &str) -> Result<Value, Unfit> {
    let mut root: Value =
        serde_json::from_str(text).map_err(|error| Unfit::Syntax(error.to_string()))?;
    let Some(fields) = root.as_object_mut() else { return Ok(root) };
    if let Some(events) = fields.get_mut(HOOKS).and_then(Value::as_object_mut) {
        events.values_mut().for_each(keep_foreign_groups);
        drop_empty(events);
    }
    let rules: Vec<Value> = description::rules().into_iter().map(Value::from).collect();
    if let Some(permissions) = fields.get_mut(PERMISSIONS).and_then(Value::as_object_mut) {
        if let Some(allowed) = permissions.get_mut(ALLOW).and_then(Value::as_array_mut) {
            allowed.retain(|rule| !rules.contains(rule));
        }
        drop_empty(permissions);
    }
    if fields.get(STATUS_LINE).is_some_and(owner::is_our_status_line) {
        fields.remove(STATUS_LINE);
    }
    if let Some(servers) = fields.get_mut(SERVERS).and_then(Value::as_object_mut) {
        servers.retain(|name, entry| name != SERVER || !owner::is_our_server(entry));
    }
    drop_empty(fields);
    Ok(root)
}

fn keep_foreign_groups(groups: &mut Value) {
    let Some(groups) = groups.as_array_mut() else { return };
    groups.retain_mut(|group| {
        let Some(handlers) = group.get_mut(HOOKS).and_then(Value::as_array_mut) else {
            return true;
        };
        let before = handlers.len();
        handlers.retain(|handler| owner::of_handler(handler) != Owner::Ours);
        handlers.len() == before || !handlers.is_empty()
    });
}

fn drop_empty(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| {
        !value.as_object().is_some_and(Map::is_empty)
            && !value.as_array().is_some_and(Vec::is_empty)
    });
}

#[cfg(test)]
mod tests;
