//! An object as the API server sends it, without what nobody here reads: of a Gateway with ten listeners, who wrote which field of its
//! status is more than all the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// An object of any kind.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Names, labels and the like; not who wrote what.
    pub metadata: ObjectMeta,
    /// All other fields but the status.
    pub fields: Map<String, Value>,
    /// The status, as JSON.
    pub status: Option<Box<str>>,
}

impl Resource for Fetched {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de> Deserialize<'de> for Fetched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Fetched;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of the API server")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fetched, M::Error> {
        let mut fetched = Fetched::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "apiVersion" | "kind" => drop(map.next_value::<IgnoredAny>()?),
                "metadata" => fetched.metadata = map.next_value::<Metadata>()?.into(),
                "status" => {
                    let status = map.next_value::<Option<Box<RawValue>>>()?;
                    fetched.status = status.map(Box::<str>::from).filter(|text| &**text != "null");
                }
                _ => drop(fetched.fields.insert(name, map.next_value()?)),
            }
        }
        Ok(fetched)
    }
}

/// What of an object's metadata is read.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        let Metadata {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            labels,
            annotations,
        } = metadata;
        Self {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            labels,
            annotations,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::api::{ObjectList, WatchEvent};

    use super::*;

    const ROUTE: &str = r#"{"apiVersion":"a/v1","kind":"Route","metadata":{"name":"web","namespace":"default","resourceVersion":"7",
        "managedFields":[{"manager":"blixt","fieldsV1":{"f:status":{}}}]},"spec":{"rules":[]},"status":{"parents": []}}"#;

    fn check(route: &Fetched) {
        assert_eq!((route.name_any().as_str(), route.resource_version().as_deref()), ("web", Some("7")));
        assert!(route.managed_fields().is_empty());
        assert_eq!(route.status.as_deref(), Some(r#"{"parents": []}"#));
        assert!(route.fields.keys().eq(["spec"]));
    }

    #[test]
    fn lists_and_watches_bring_everything_but_who_wrote_it() {
        check(&serde_json::from_str(ROUTE).unwrap());
        let list = format!(
            r#"{{"apiVersion":"a/v1","kind":"RouteList","metadata":{{"resourceVersion":"9"}},"items":[{ROUTE}]}}"#
        );
        check(&serde_json::from_str::<ObjectList<Fetched>>(&list).unwrap().items[0]);
        let event = format!(r#"{{"type":"MODIFIED","object":{ROUTE}}}"#);
        let WatchEvent::Modified(route) = serde_json::from_str(&event).unwrap() else { panic!() };
        check(&route);
    }

    #[test]
    fn an_object_without_a_status_or_with_none_has_none() {
        for text in [r#"{"metadata":{"name":"web"}}"#, r#"{"metadata":{"name":"web"},"status":null}"#] {
            assert_eq!(serde_json::from_str::<Fetched>(text).unwrap().status, None);
        }
    }
}
