//! How F&O describes itself: CSDL that a strict reader accepts, and the documents below `/metadata`.

mod common;

#[path = "common/sales.rs"]
mod sales;

use std::collections::{BTreeMap, BTreeSet};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// One element: its name, its attributes, and what stands in it.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    children: Vec<Element>,
}

impl Element {
    fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &Self> + use<'_> {
        let name = name.to_owned();
        self.children.iter().filter(move |child| child.name == name)
    }

    fn only(&self, name: &str) -> &Self {
        let mut all = self.all(name);
        let first = all.next().unwrap_or_else(|| panic!("{} has no {name}", self.name));
        assert!(all.next().is_none(), "{} has several {name}", self.name);
        first
    }

    fn named(&self, kind: &str, name: &str) -> &Self {
        self.all(kind)
            .find(|one| one.get("Name") == name)
            .unwrap_or_else(|| panic!("no {kind} {name} in {}", self.get("Name")))
    }

    fn annotation(&self, term: &str) -> Option<&str> {
        let term = format!("Microsoft.Dynamics.OData.Core.V1.{term}");
        let found = self.all("Annotation").find(|one| one.get("Term") == term)?;
        ["String", "Bool", "EnumMember"].iter().find_map(|kind| found.attributes.get(*kind)).map(String::as_str)
    }
}

/// Reads XML; everything that is not well formed is a failure.
fn parse(xml: &str) -> Element {
    let element = |start: &BytesStart<'_>| Element {
        name: start.name().as_ref().to_owned(),
        attributes: start
            .attributes()
            .map(|attribute| {
                let attribute = attribute.expect("an attribute, once");
                let value = attribute.value.into_owned();
                (attribute.key.as_ref().to_owned(), value)
            })
            .collect(),
        children: Vec::new(),
    };
    let mut reader = Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    let mut open = vec![Element::default()];
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(start) => open.push(element(&start)),
            Event::Empty(start) => open.last_mut().expect("a parent").children.push(element(&start)),
            Event::End(_) => {
                let closed = open.pop().expect("an open element");
                open.last_mut().expect("a parent").children.push(closed);
            }
            Event::Text(text) => assert!(text.trim().is_empty(), "text between elements"),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open.len(), 1, "an element stays open");
    open.remove(0)
}

#[tokio::test]
async fn the_service_is_described_for_strict_readers() {
    let system = sales::started().await;
    let reply = system.get("$metadata").await;
    assert_eq!(reply.header("content-type"), "application/xml");
    let document = parse(&reply.text);
    let edmx = document.only("edmx:Edmx");
    assert_eq!(edmx.get("Version"), "4.0");
    let schema = edmx.only("edmx:DataServices").only("Schema");
    let namespace = schema.get("Namespace");
    assert_eq!(namespace, "Microsoft.Dynamics.DataEntities");

    // Every name is there once, and every type that is named is there.
    let enums = schema.all("EnumType").map(|one| one.get("Name")).collect::<BTreeSet<_>>();
    let types = schema.all("EntityType").map(|one| (one.get("Name"), one)).collect::<BTreeMap<_, _>>();
    assert_eq!(schema.all("EntityType").count(), types.len());
    assert!(types.keys().all(|name| !enums.contains(name)));
    for (name, entity) in &types {
        let mut names = BTreeSet::from([*name]);
        let members = entity.all("Property").chain(entity.all("NavigationProperty"));
        for member in members {
            assert!(names.insert(member.get("Name")), "{name}.{} stands there twice", member.get("Name"));
        }
        let properties = entity.all("Property").map(|one| (one.get("Name"), one)).collect::<BTreeMap<_, _>>();
        for part in entity.only("Key").all("PropertyRef") {
            assert_eq!(properties[part.get("Name")].get("Nullable"), "false", "{name}");
        }
        for property in properties.values() {
            let of = property.get("Type");
            let is_known = match of.strip_prefix("Edm.") {
                Some(primitive) => {
                    ["String", "Int32", "Int64", "Decimal", "Double", "Boolean", "DateTimeOffset", "Date", "Guid"]
                        .contains(&primitive)
                }
                None => of.strip_prefix(&format!("{namespace}.")).is_some_and(|name| enums.contains(name)),
            };
            assert!(is_known, "{name}.{}: {of}", property.get("Name"));
        }
        for navigation in entity.all("NavigationProperty") {
            let of = navigation.get("Type");
            let bare = of.strip_prefix("Collection(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(of);
            let other = types[bare.strip_prefix(&format!("{namespace}.")).expect("a type of this schema")];
            for constraint in navigation.all("ReferentialConstraint") {
                assert!(properties.contains_key(constraint.get("Property")), "{name}");
                other.named("Property", constraint.get("ReferencedProperty"));
            }
            if let Some(partner) = navigation.attributes.get("Partner") {
                let back = other.named("NavigationProperty", partner);
                assert_eq!(back.get("Partner"), navigation.get("Name"), "{name}");
            }
        }
    }
    let container = schema.only("EntityContainer");
    let sets = container.all("EntitySet").map(|one| (one.get("Name"), one)).collect::<BTreeMap<_, _>>();
    assert_eq!((sets.len(), container.all("EntitySet").count()), (types.len(), types.len()));
    for (name, set) in &sets {
        let entity =
            types[set.get("EntityType").strip_prefix(&format!("{namespace}.")).expect("a type of this schema")];
        assert_eq!(set.all("NavigationPropertyBinding").count(), entity.all("NavigationProperty").count(), "{name}");
        for binding in set.all("NavigationPropertyBinding") {
            entity.named("NavigationProperty", binding.get("Path"));
            assert!(sets.contains_key(binding.get("Target")), "{name}: {}", binding.get("Target"));
        }
    }

    for action in schema.all("Action") {
        let mut parameters = action.all("Parameter");
        let bound = parameters.next().expect("what it is bound to");
        let of = bound
            .get("Type")
            .strip_prefix("Collection(")
            .and_then(|rest| rest.strip_suffix(')'))
            .expect("a collection");
        assert!(types.contains_key(of.strip_prefix(&format!("{namespace}.")).expect("a type of this schema")));
        assert!(parameters.all(|one| one.get("Type").starts_with("Edm.")), "{}", action.get("Name"));
    }
    assert!(schema.all("Action").any(|one| one.get("Name") == "GetExecutionSummaryStatus"));

    // What stands in it.
    let customer = types["CustomerV3"];
    let keys = customer.only("Key").all("PropertyRef").map(|part| part.get("Name")).collect::<Vec<_>>();
    assert_eq!(keys, ["dataAreaId", "CustomerAccount"]);
    for (property, kind, nullable, ax_type, required) in [
        ("CustomerAccount", "Edm.String", "false", "String", Some("true")),
        ("OrganizationName", "Edm.String", "", "String", None),
        ("CreditLimit", "Edm.Decimal", "false", "Real", None),
        ("CreditRating", "Edm.Int32", "false", "Int32", None),
        ("PartyRecordId", "Edm.Int64", "false", "Int64", None),
        ("PartyType", "Microsoft.Dynamics.DataEntities.DirPartyType", "", "Enum", None),
        ("RowId", "Edm.Guid", "false", "Guid", None),
        ("LastOrderAt", "Edm.DateTimeOffset", "false", "UtcDateTime", None),
        ("Factor", "Edm.Double", "false", "Real", None),
    ] {
        let found = customer.named("Property", property);
        assert_eq!((found.get("Type"), found.get("Nullable")), (kind, nullable), "{property}");
        assert_eq!(
            found.annotation("AXType"),
            Some(format!("Microsoft.Dynamics.OData.Core.V1.AXType/{ax_type}").as_str())
        );
        assert_eq!(found.annotation("IsRequired"), required, "{property}");
    }
    assert_eq!(customer.named("Property", "CustomerGroupId").annotation("LabelId"), Some("Customer group"));
    assert_eq!(customer.named("Property", "CustomerAccount").annotation("AllowEdit"), Some("false"));
    assert_eq!(types["InventorySite"].annotation("IsReadOnly"), Some("true"));
    let group = customer.named("NavigationProperty", "CustomerGroup");
    assert_eq!(
        (group.get("Type"), group.get("Partner")),
        ("Microsoft.Dynamics.DataEntities.CustomerGroup", "Customers")
    );
    let pairs = group.all("ReferentialConstraint").map(|one| (one.get("Property"), one.get("ReferencedProperty")));
    assert_eq!(pairs.collect::<Vec<_>>(), [("CustomerGroupId", "CustomerGroupId"), ("dataAreaId", "dataAreaId")]);
    let members = schema.named("EnumType", "DirPartyType");
    let members = members.all("Member").map(|one| format!("{}={}", one.get("Name"), one.get("Value")));
    assert_eq!(members.collect::<Vec<_>>().join(" "), "None=0 Person=1 Organization=2");
}

#[tokio::test]
async fn lists_of_entities_are_queried() {
    let system = sales::started().await;
    let names = |reply: &common::Reply| reply.column("Name").join(" ");
    for (query, wanted) in [
        ("DataEntities?$filter=PublicCollectionName eq 'CustomersV3'", "CustCustomerV3Entity"),
        ("DataEntities?$filter=contains(tolower(Name),'custcustomer')", "CustCustomerGroupEntity CustCustomerV3Entity"),
        (
            "DataEntities?$filter=EntityCategory eq Microsoft.Dynamics.Metadata.EntityCategory'Reference'&$orderby=Name desc",
            "CustCustomerGroupEntity CurrencyEntity",
        ),
        ("DataEntities?$filter=IsReadOnly eq true and DataManagementEnabled eq true", "InventSiteEntity"),
        (
            "PublicEntities?$filter=startswith(Name,'Sales')&$select=Name,EntitySetName",
            "SalesOrderHeaderV2 SalesOrderLine",
        ),
        ("PublicEntities?$filter=startswith(Name,'Sales')&$top=1&$skip=1", "SalesOrderLine"),
        ("PublicEnumerations?$filter=startswith(Name,'N') or startswith(Name,'Dir')", "DirPartyType NoYes"),
        ("PublicEnumerations?$filter=Name eq 'noyes'", "NoYes"),
    ] {
        let reply = system.get(&format!("/metadata/{}", query.replace(' ', "%20"))).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        assert_eq!(names(&reply), wanted, "{query}");
    }
    let selected = system.json("/metadata/PublicEntities?$select=Name,EntitySetName&$top=1&$count=true").await;
    assert_eq!(selected["value"][0].as_object().expect("row").len(), 2);
    assert!(selected["@odata.count"].as_u64().expect("count") > 5);
    assert_eq!(selected["@odata.context"], format!("{}/metadata/$metadata#PublicEntities", system.base));
    for (path, status) in [
        ("/Metadata/DataEntities", 200),
        ("/metadata", 200),
        ("/metadata/DataEntities/$count", 200),
        ("/metadata/DataEntities('custcustomerV3entity')", 200),
        ("/metadata/PublicEntities(Name='CustomerV3')?$select=Name", 200),
        ("/metadata/PublicEnumerations('NoSuch')", 404),
        ("/metadata/DataEntities('CustomerV3')", 404),
        ("/metadata/NoSuch", 404),
        ("/metadata/DataEntities?$filter=NoSuch%20eq%201", 400),
        ("/metadata/DataEntities?$filter=Name%20eq", 400),
        ("/metadata/DataEntities?$select=NoSuch", 400),
        ("/metadata/DataEntities?$orderby=NoSuch", 400),
        ("/metadata/DataEntities?$top=x", 400),
        ("/metadata/Labels(Id='Customer group',Language='de')", 200),
        ("/metadata/Labels(Id='No such label',Language='de')", 404),
    ] {
        let reply = system.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }
    assert_eq!(system.send("POST", "/metadata/DataEntities", "", "{}").await.status, 405);
}

#[tokio::test]
async fn an_entity_is_described_whole() {
    let system = sales::started().await;
    let entity = system.json("/metadata/PublicEntities('CustomerV3')").await;
    for member in [
        "Name",
        "EntitySetName",
        "LabelId",
        "IsReadOnly",
        "ConfigurationEnabled",
        "Properties",
        "NavigationProperties",
        "PropertyGroups",
        "Actions",
    ] {
        assert!(entity.get(member).is_some(), "{member}");
    }
    let property = |name: &str| {
        let all = entity["Properties"].as_array().expect("list");
        all.iter().find(|one| one["Name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    for (name, type_name, data_type, flags) in [
        ("dataAreaId", "Edm.String", "String", (true, false, false, true)),
        ("CustomerAccount", "Edm.String", "String", (true, true, false, true)),
        ("CustomerGroupId", "Edm.String", "String", (false, true, true, true)),
        ("PartyType", "Microsoft.Dynamics.DataEntities.DirPartyType", "Enum", (false, false, true, true)),
        ("LastOrderAt", "Edm.DateTimeOffset", "UtcDateTime", (false, false, true, true)),
        ("CreditLimit", "Edm.Decimal", "Real", (false, false, true, true)),
    ] {
        let one = property(name);
        let flag = |member: &str| one[member].as_bool().expect("a flag");
        assert_eq!((one["TypeName"].as_str(), one["DataType"].as_str()), (Some(type_name), Some(data_type)), "{name}");
        assert_eq!((flag("IsKey"), flag("IsMandatory"), flag("AllowEdit"), flag("AllowEditOnCreate")), flags, "{name}");
    }
    let navigation = entity["NavigationProperties"].as_array().expect("list");
    let shown = navigation
        .iter()
        .map(|one| {
            let pairs = one["Constraints"]
                .as_array()
                .expect("list")
                .iter()
                .map(|pair| format!("{}={}", pair["Property"], pair["ReferencedProperty"]));
            format!(
                "{} {} {} {}",
                one["Name"],
                one["RelatedEntity"],
                one["Cardinality"],
                pairs.collect::<Vec<_>>().join(",")
            )
            .replace('"', "")
        })
        .collect::<Vec<_>>();
    assert_eq!(
        shown,
        [
            "Currency Currency Single SalesCurrencyCode=CurrencyCode",
            "CustomerGroup CustomerGroup Single CustomerGroupId=CustomerGroupId,dataAreaId=dataAreaId",
            "SalesOrders SalesOrderHeaderV2 Multiple CustomerAccount=OrderingCustomerAccountNumber,dataAreaId=dataAreaId",
        ]
    );
    let groups = system.json("/metadata/PublicEntities('DataManagementDefinitionGroup')").await;
    let actions = groups["Actions"].as_array().expect("list");
    let status = actions.iter().find(|one| one["Name"] == "GetExecutionSummaryStatus").expect("the action");
    assert_eq!(status["BindingKind"], "BoundToEntitySet");
    assert_eq!(status["Parameters"][0]["Type"]["TypeName"], "Edm.String");
    let members = system.json("/metadata/PublicEnumerations('DirPartyType')").await;
    assert_eq!(members["Members"][1]["Name"], "Person");
    assert_eq!(
        (&members["Members"][2]["Value"], &members["Members"][2]["LabelText"]),
        (&2.into(), &"Organization".into())
    );
}
