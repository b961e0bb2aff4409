//! The JSON of one definition: a table, a column, a key, a relationship, a choice.
//!
//! Owns the members and their values (`EntityMetadata`, `AttributeMetadata` and their kin in the Web API reference).
//! Does not know which of them were asked for.

use serde_json::{Map, Value, json};

use super::{NAMESPACE, attribute_id, choice_id, key_id, metadata_id, relationship_id};
use crate::catalogue::{Catalogue, Column, Relation, Table};
use crate::dataverse::system;
use crate::definition::{
    ColumnDefinition, ColumnKind, DateBehavior, DeleteBehavior, KeyDefinition, ManyToManyDefinition, OptionDefinition,
    Ownership,
};

pub(super) type Members = Map<String, Value>;

fn members(value: Value) -> Members {
    match value {
        Value::Object(members) => members,
        _ => Members::new(),
    }
}

/// A text in the one language that is installed.
pub(super) fn label(text: &str) -> Value {
    let label = json!({
        "Label": text, "LanguageCode": 1033, "IsManaged": false,
        "MetadataId": metadata_id(&format!("label {text}")), "HasChanged": null,
    });
    json!({"LocalizedLabels": [label], "UserLocalizedLabel": label})
}

fn label_or_none(text: Option<&str>) -> Value {
    text.map_or_else(|| json!({"LocalizedLabels": [], "UserLocalizedLabel": null}), label)
}

fn managed(value: bool, can_be_changed: bool, name: &str) -> Value {
    json!({"Value": value, "CanBeChanged": can_be_changed, "ManagedPropertyLogicalName": name})
}

pub(super) fn table_schema_name(table: &Table) -> String {
    table.definition.schema_name.clone().unwrap_or_else(|| system::schema_name(table.name()))
}

fn table_label(table: &Table) -> String {
    let definition = &table.definition;
    definition
        .display_name
        .clone()
        .or_else(|| definition.entity.clone())
        .unwrap_or_else(|| system::label_of(table.name()))
}

pub(super) fn ownership_name(ownership: Option<Ownership>) -> &'static str {
    match ownership {
        None | Some(Ownership::User) => "UserOwned",
        Some(Ownership::Organization) => "OrganizationOwned",
        Some(Ownership::Business) => "BusinessOwned",
        Some(Ownership::None) => "None",
    }
}

pub(super) fn entity(table: &Table) -> Members {
    let name = table.name();
    let definition = &table.definition;
    let schema_name = table_schema_name(table);
    let is_custom = system::is_custom(name);
    let collection_label =
        definition.display_collection_name.clone().unwrap_or_else(|| system::label_of(&definition.set));
    let mut entity = members(json!({
        "ActivityTypeMask": 0,
        "AutoRouteToOwnerQueue": false,
        "CanTriggerWorkflow": true,
        "Description": label_or_none(definition.description.as_deref()),
        "DisplayCollectionName": label(&collection_label),
        "DisplayName": label(&table_label(table)),
        "EntityHelpUrlEnabled": false,
        "EntityHelpUrl": null,
        "IsDocumentManagementEnabled": false,
        "IsOneNoteIntegrationEnabled": false,
        "IsInteractionCentricEnabled": false,
        "IsKnowledgeManagementEnabled": false,
        "IsSLAEnabled": false,
        "IsBPFEntity": false,
        "AutoCreateAccessTeams": false,
        "IsActivity": false,
        "IsActivityParty": false,
        "IsAuditEnabled": managed(false, true, "canmodifyauditsettings"),
        "IsAvailableOffline": false,
        "IsChildEntity": false,
        "IsAIRUpdated": true,
        "IsValidForQueue": managed(false, true, "canmodifyqueuesettings"),
        "IsConnectionsEnabled": managed(false, true, "canmodifyconnectionsettings"),
        "IsCustomEntity": is_custom,
        "IsBusinessProcessEnabled": false,
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "IsRenameable": managed(true, true, "isrenameable"),
        "IsMappable": managed(true, false, "ismappable"),
        "IsDuplicateDetectionEnabled": managed(false, true, "canmodifyduplicatedetectionsettings"),
        "CanCreateAttributes": managed(true, false, "cancreateattributes"),
        "CanCreateForms": managed(true, true, "cancreateforms"),
        "CanCreateViews": managed(true, true, "cancreateviews"),
        "CanCreateCharts": managed(true, true, "cancreatecharts"),
        "CanBeRelatedEntityInRelationship": managed(true, false, "canberelatedentityinrelationship"),
        "CanBePrimaryEntityInRelationship": managed(true, false, "canbeprimaryentityinrelationship"),
        "CanBeInManyToMany": managed(true, false, "canbeinmanytomany"),
        "CanModifyAdditionalSettings": managed(true, true, "canmodifyadditionalsettings"),
        "CanChangeHierarchicalRelationship": managed(true, true, "canchangehierarchicalrelationship"),
        "CanChangeTrackingBeEnabled": managed(true, true, "canchangetrackingbeenabled"),
        "SyncToExternalSearchIndex": false,
    }));
    entity.extend(members(json!({
        "MetadataId": metadata_id(name),
        "HasChanged": null,
        "IsOptimisticConcurrencyEnabled": true,
        "ChangeTrackingEnabled": !definition.untracked,
        "IsImportable": true,
        "IsIntersect": table.definition.many_to_many.is_some(),
        "IsManaged": false,
        "IsLogicalEntity": false,
        "IsEnabledForCharts": true,
        "IsEnabledForTrace": false,
        "IsValidForAdvancedFind": true,
        "IsStateModelAware": table.server.state.is_some(),
        "EnforceStateTransitions": false,
        "DaysSinceRecordLastModified": 0,
        "IsReadingPaneEnabled": true,
        "IsQuickCreateEnabled": false,
        "IsPrivate": false,
        "IsArchivalEnabled": false,
    })));
    entity.extend(members(json!({
        "LogicalName": name,
        "LogicalCollectionName": definition.set.to_lowercase(),
        "CollectionSchemaName": definition.set,
        "EntitySetName": table.set(),
        "SchemaName": schema_name,
        "ObjectTypeCode": system::object_type_code(name, table.number),
        "OwnershipType": ownership_name(definition.ownership),
        "PrimaryIdAttribute": definition.primary_id,
        "PrimaryNameAttribute": definition.primary_name,
        "PrimaryImageAttribute": null,
        "ReportViewName": format!("Filtered{}", schema_name.replace('_', "")),
        "IntroducedVersion": "1.0.0.0",
        "HasNotes": false,
        "HasActivities": false,
        "HasFeedback": false,
        "HasEmailAddresses": false,
        "DataProviderId": null,
        "DataSourceId": null,
        "ExternalName": null,
        "ExternalCollectionName": null,
        "EntityColor": null,
        "IsSolutionAware": false,
        "UsesBusinessDataLabelTable": false,
        "TableType": "Standard",
        "OwnerId": null,
        "OwnerIdType": null,
        "OwningBusinessUnit": null,
        "CreatedOn": "2024-01-01T00:00:00Z",
        "ModifiedOn": "2024-01-01T00:00:00Z",
        "SettingOf": null,
        "Privileges": privileges(&schema_name),
        "Settings": [],
    })));
    entity
}

fn privileges(schema_name: &str) -> Vec<Value> {
    ["Create", "Read", "Write", "Delete", "Append", "AppendTo", "Assign", "Share"]
        .iter()
        .map(|kind| {
            let name = format!("prv{kind}{schema_name}");
            json!({
                "CanBeBasic": true, "CanBeDeep": true, "CanBeGlobal": true, "CanBeLocal": true,
                "CanBeEntityReference": false, "CanBeParentEntityReference": false, "CanBeRecordFilter": false,
                "PrivilegeId": metadata_id(&name), "Name": name, "PrivilegeType": kind,
            })
        })
        .collect()
}

/// `AttributeType`, the type that a cast names, and `AttributeTypeName`.
pub(super) fn attribute_type(table: &Table, column: &Column) -> (&'static str, &'static str, &'static str) {
    let definition = &column.definition;
    match (definition.kind, definition.name.as_str()) {
        (ColumnKind::Choice | ColumnKind::Enum, "statecode") => ("State", "StateAttributeMetadata", "StateType"),
        (ColumnKind::Choice | ColumnKind::Enum, "statuscode") => ("Status", "StatusAttributeMetadata", "StatusType"),
        (ColumnKind::Lookup, "ownerid") => ("Owner", "LookupAttributeMetadata", "OwnerType"),
        (ColumnKind::Lookup, _) if is_customer(table, definition) => {
            ("Customer", "LookupAttributeMetadata", "CustomerType")
        }
        (kind, _) => match kind {
            ColumnKind::Text => ("String", "StringAttributeMetadata", "StringType"),
            ColumnKind::Memo => ("Memo", "MemoAttributeMetadata", "MemoType"),
            ColumnKind::Int => ("Integer", "IntegerAttributeMetadata", "IntegerType"),
            ColumnKind::Bigint => ("BigInt", "BigIntAttributeMetadata", "BigIntType"),
            ColumnKind::Decimal => ("Decimal", "DecimalAttributeMetadata", "DecimalType"),
            ColumnKind::Money => ("Money", "MoneyAttributeMetadata", "MoneyType"),
            ColumnKind::Double => ("Double", "DoubleAttributeMetadata", "DoubleType"),
            ColumnKind::Boolean => ("Boolean", "BooleanAttributeMetadata", "BooleanType"),
            ColumnKind::Datetime | ColumnKind::Date => ("DateTime", "DateTimeAttributeMetadata", "DateTimeType"),
            ColumnKind::Guid => ("Uniqueidentifier", "UniqueIdentifierAttributeMetadata", "UniqueidentifierType"),
            ColumnKind::Choice | ColumnKind::Enum => ("Picklist", "PicklistAttributeMetadata", "PicklistType"),
            ColumnKind::MultiChoice => ("Virtual", "MultiSelectPicklistAttributeMetadata", "MultiSelectPicklistType"),
            ColumnKind::Lookup => ("Lookup", "LookupAttributeMetadata", "LookupType"),
        },
    }
}

/// A lookup to accounts and contacts alike is a customer.
fn is_customer(_table: &Table, definition: &ColumnDefinition) -> bool {
    let mut targets = definition.targets.iter().map(|target| target.table.as_str()).collect::<Vec<_>>();
    targets.sort_unstable();
    targets == ["account", "contact"]
}

pub(super) fn column_schema_name(definition: &ColumnDefinition) -> String {
    if let Some(name) = &definition.schema_name {
        return name.clone();
    }
    // The navigation property of a custom lookup is spelled as its schema name.
    let spelled = match definition.targets.as_slice() {
        [target] => target.navigation_property.as_deref().filter(|name| name.eq_ignore_ascii_case(&definition.name)),
        _ => None,
    };
    match spelled {
        Some(name) if system::is_custom(name) => name.to_owned(),
        _ => system::schema_name(&definition.name),
    }
}

/// One column. Only a cast shows what only its type has.
pub(super) fn attribute(table: &Table, at: usize, typed: bool) -> Members {
    let column = &table.columns[at];
    let definition = &column.definition;
    let (kind, metadata, type_name) = attribute_type(table, column);
    let is_id = Some(at) == table.primary_id;
    let is_base = system::amount_of_base(definition).is_some();
    let level = match (is_id, definition.required) {
        (true, _) => "SystemRequired",
        (false, true) => "ApplicationRequired",
        (false, false) => "None",
    };
    let is_state = matches!(kind, "State" | "Status");
    let display = definition.display_name.clone().unwrap_or_else(|| system::label_of(&definition.name));
    let mut value = members(json!({
        "@odata.type": format!("#{NAMESPACE}{metadata}"),
        "MetadataId": attribute_id(table.name(), &definition.name),
        "HasChanged": null,
        "AttributeOf": null,
        "AttributeType": kind,
        "ColumnNumber": at + 1,
        "DeprecatedVersion": null,
        "IntroducedVersion": "1.0.0.0",
        "EntityLogicalName": table.name(),
        "IsCustomAttribute": system::is_custom(&definition.name),
        "IsPrimaryId": is_id,
        "IsValidODataAttribute": true,
        "IsPrimaryName": table.definition.primary_name.as_ref() == Some(&definition.name),
        "IsValidForCreate": !definition.read_only,
        "IsValidForRead": !definition.secret,
        "IsValidForUpdate": !definition.read_only && !definition.create_only && !is_id,
        "CanBeSecuredForRead": !is_id,
        "CanBeSecuredForCreate": !is_id,
        "CanBeSecuredForUpdate": !is_id,
        "IsSecured": false,
        "IsRetrievable": true,
        "IsFilterable": false,
        "IsSearchable": false,
        "IsManaged": false,
        "LinkedAttributeId": null,
        "LogicalName": definition.name,
        "IsValidForForm": true,
        "IsRequiredForForm": false,
        "IsValidForGrid": true,
        "SchemaName": column_schema_name(definition),
    }));
    value.extend(members(json!({
        "ExternalName": null,
        "IsLogical": is_base,
        "IsDataSourceSecret": false,
        "InheritsFrom": null,
        "CreatedOn": "2024-01-01T00:00:00Z",
        "ModifiedOn": "2024-01-01T00:00:00Z",
        "SourceType": 0,
        "AutoNumberFormat": (definition.kind == ColumnKind::Text).then_some(""),
        "AttributeTypeName": {"Value": type_name},
        "Description": label_or_none(definition.description.as_deref()),
        "DisplayName": label(&display),
        "IsAuditEnabled": managed(!definition.read_only, true, "canmodifyauditsettings"),
        "IsGlobalFilterEnabled": managed(false, true, "canmodifyglobalfiltersettings"),
        "IsSortableEnabled": managed(false, true, "canmodifyissortablesettings"),
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "IsRenameable": managed(true, true, "isrenameable"),
        "IsValidForAdvancedFind": managed(true, !is_state, "canmodifysearchsettings"),
        "RequiredLevel": {
            "Value": if is_state && kind == "State" { "SystemRequired" } else { level },
            "CanBeChanged": !is_id && !definition.read_only,
            "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings",
        },
        "CanModifyAdditionalSettings": managed(true, true, "canmodifyadditionalsettings"),
        "Settings": [],
    })));
    // A definition that a person wrote says itself what the state requires.
    if kind == "State" && !definition.required {
        value["RequiredLevel"]["Value"] = json!("None");
    }
    if typed {
        value.extend(typed_members(definition));
    }
    value
}

fn typed_members(definition: &ColumnDefinition) -> Members {
    let bound = |bound: &Option<serde_json::Number>, otherwise: Value| bound.clone().map_or(otherwise, Value::Number);
    let (min, max) = (&definition.min, &definition.max);
    members(match definition.kind {
        ColumnKind::Text => {
            let format = definition.format.as_deref().unwrap_or("Text");
            let length = definition.max_length.unwrap_or(4_000);
            json!({
                // Formats that are younger than the enumeration have a name only.
                "Format": if matches!(format, "Json" | "RichText") { "Text" } else { format },
                "ImeMode": "Auto", "MaxLength": length, "YomiOf": null, "IsLocalizable": false,
                "DatabaseLength": length * 2, "FormulaDefinition": "", "SourceTypeMask": 0,
                "FormatName": {"Value": format},
            })
        }
        ColumnKind::Memo => json!({
            "Format": "TextArea", "ImeMode": "Auto", "MaxLength": definition.max_length.unwrap_or(1_048_576),
            "IsLocalizable": false, "FormatName": {"Value": definition.format.as_deref().unwrap_or("TextArea")},
        }),
        ColumnKind::Int => json!({
            "Format": definition.format.as_deref().unwrap_or("None"),
            "MinValue": bound(min, json!(i32::MIN)), "MaxValue": bound(max, json!(i32::MAX)),
            "FormulaDefinition": "", "SourceTypeMask": 0,
        }),
        ColumnKind::Bigint => json!({"MinValue": i64::MIN, "MaxValue": i64::MAX}),
        ColumnKind::Decimal => json!({
            "MinValue": bound(min, json!(-100_000_000_000_i64)), "MaxValue": bound(max, json!(100_000_000_000_i64)),
            "ImeMode": "Auto", "Precision": definition.precision.unwrap_or(10), "FormulaDefinition": "", "SourceTypeMask": 0,
        }),
        ColumnKind::Double => json!({
            "MinValue": bound(min, json!(-100_000_000_000_i64)), "MaxValue": bound(max, json!(100_000_000_000_i64)),
            "ImeMode": "Auto", "Precision": definition.precision.unwrap_or(5),
        }),
        ColumnKind::Money => json!({
            "MinValue": bound(min, json!(-922_337_203_685_477_i64)),
            "MaxValue": bound(max, json!(922_337_203_685_477_i64)),
            "ImeMode": "Auto", "Precision": definition.precision.unwrap_or(4),
            "PrecisionSource": if definition.precision.is_some() { 0 } else { 2 },
            "CalculationOf": system::amount_of_base(definition),
            "IsBaseCurrency": system::amount_of_base(definition).is_some(),
            "FormulaDefinition": "", "SourceTypeMask": 0,
        }),
        ColumnKind::Datetime | ColumnKind::Date => {
            let behavior = behavior_of(definition);
            let format = definition.format.as_deref().unwrap_or(match behavior {
                DateBehavior::DateOnly => "DateOnly",
                DateBehavior::UserLocal | DateBehavior::TimeZoneIndependent => "DateAndTime",
            });
            json!({
                "MinSupportedValue": "1753-01-01T00:00:00Z", "MaxSupportedValue": "9999-12-30T23:59:59Z",
                "Format": format, "ImeMode": "Inactive", "SourceTypeMask": 0, "FormulaDefinition": "",
                "DateTimeBehavior": {"Value": behavior},
                "CanChangeDateTimeBehavior": managed(true, true, "canchangedatetimebehavior"),
            })
        }
        ColumnKind::Choice | ColumnKind::Enum => {
            json!({"DefaultFormValue": -1, "FormulaDefinition": "", "SourceTypeMask": 0})
        }
        ColumnKind::MultiChoice => json!({"DefaultFormValue": -1, "FormulaDefinition": "", "SourceTypeMask": 0}),
        ColumnKind::Boolean => json!({"DefaultValue": false, "FormulaDefinition": "", "SourceTypeMask": 0}),
        ColumnKind::Lookup => {
            let targets = definition.targets.iter().map(|target| target.table.as_str()).collect::<Vec<_>>();
            json!({"Targets": targets, "Format": "None"})
        }
        ColumnKind::Guid => json!({}),
    })
}

pub(super) fn behavior_of(definition: &ColumnDefinition) -> DateBehavior {
    definition.behavior.unwrap_or(match definition.kind {
        ColumnKind::Date => DateBehavior::DateOnly,
        _ => DateBehavior::UserLocal,
    })
}

fn option(option: &OptionDefinition, metadata: &str) -> Value {
    let mut value = json!({
        "Value": option.value, "Label": label(&option.name), "Description": label_or_none(None), "Color": null,
        "IsManaged": false, "ExternalValue": "", "ParentValues": [], "Tag": null, "IsHidden": false,
        "MetadataId": null, "HasChanged": null,
    });
    match metadata {
        "StateAttributeMetadata" => {
            value["@odata.type"] = json!(format!("#{NAMESPACE}StateOptionMetadata"));
            // The status that a row gets with the state, and the state's name for programs.
            value["DefaultStatus"] = json!(option.value.saturating_add(1));
            value["InvariantName"] = json!(option.name);
        }
        "StatusAttributeMetadata" => {
            value["@odata.type"] = json!(format!("#{NAMESPACE}StatusOptionMetadata"));
            value["State"] = json!(option.state.unwrap_or(0));
            value["TransitionData"] = Value::Null;
        }
        _ => {}
    }
    value
}

/// The choice of one column: `OptionSet` or `GlobalOptionSet`; `None` when the column has none, or none of that sort.
pub(super) fn option_set(table: &Table, column: &Column, global: bool) -> Option<Value> {
    let definition = &column.definition;
    let (_, metadata, _) = attribute_type(table, column);
    let is_global = definition.enumeration.is_some();
    match definition.kind {
        ColumnKind::Boolean if !global => Some(boolean_set(table, definition)),
        ColumnKind::Choice | ColumnKind::Enum | ColumnKind::MultiChoice if global == is_global => {
            Some(match &definition.enumeration {
                Some(name) => choice(name, &definition.options),
                None => choice_of(
                    &format!("{}_{}", table.name(), definition.name),
                    &definition.options,
                    metadata,
                    definition.display_name.as_deref(),
                    false,
                ),
            })
        }
        // A global choice shows its options as the column's own, too.
        ColumnKind::Choice | ColumnKind::Enum | ColumnKind::MultiChoice if !global => {
            definition.enumeration.as_ref().map(|name| choice(name, &definition.options))
        }
        _ => None,
    }
}

fn boolean_set(table: &Table, definition: &ColumnDefinition) -> Value {
    let name = format!("{}_{}", table.name(), definition.name);
    let labelled = |value: i64, usual: &str| {
        let own = definition.options.iter().find(|option| option.value == value).map_or(usual, |option| &option.name);
        option(&OptionDefinition { name: own.to_owned(), value, state: None }, "")
    };
    json!({
        "MetadataId": choice_id(&name), "HasChanged": null, "IsCustomOptionSet": system::is_custom(&definition.name),
        "IsGlobal": false, "IsManaged": false, "Name": name, "ExternalTypeName": null, "OptionSetType": "Boolean",
        "IntroducedVersion": null, "Description": label_or_none(None), "DisplayName": label_or_none(None),
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "TrueOption": labelled(1, "Yes"), "FalseOption": labelled(0, "No"),
    })
}

/// A global choice.
pub(super) fn choice(name: &str, options: &[OptionDefinition]) -> Value {
    choice_of(name, options, "", None, true)
}

fn choice_of(
    name: &str,
    options: &[OptionDefinition],
    metadata: &str,
    display: Option<&str>,
    is_global: bool,
) -> Value {
    let kind = match metadata {
        "StateAttributeMetadata" => "State",
        "StatusAttributeMetadata" => "Status",
        _ => "Picklist",
    };
    json!({
        "@odata.type": format!("#{NAMESPACE}OptionSetMetadata"),
        "MetadataId": choice_id(name), "HasChanged": null, "IsCustomOptionSet": system::is_custom(name),
        "IsGlobal": is_global, "IsManaged": false, "Name": name, "ExternalTypeName": "", "OptionSetType": kind,
        "IntroducedVersion": "1.0.0.0", "ParentOptionSetName": null, "Description": label_or_none(None),
        "DisplayName": label(display.unwrap_or(&system::label_of(name))),
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "Options": options.iter().map(|one| option(one, metadata)).collect::<Vec<_>>(),
    })
}

pub(super) fn key(table: &Table, key: &KeyDefinition) -> Members {
    members(json!({
        "MetadataId": key_id(table.name(), &key.name),
        "HasChanged": null,
        "SchemaName": key.name,
        "LogicalName": key.name.to_lowercase(),
        "EntityLogicalName": table.name(),
        "KeyAttributes": key.columns,
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "IsManaged": false,
        "IntroducedVersion": "1.0.0.0",
        "EntityKeyIndexStatus": if key.failed { "Failed" } else { "Active" },
        "IsSynchronous": false,
        "IsExportKey": false,
        "IsSecondaryKey": false,
        "DisplayName": label(key.display_name.as_deref().unwrap_or(&system::label_of(&key.name))),
    }))
}

pub(super) fn relationship(catalogue: &Catalogue, relation: &Relation) -> Members {
    let referenced = catalogue.by_name(&relation.referenced);
    let referencing = catalogue.by_name(&relation.referencing);
    let attribute = referencing.map(|table| table.columns[relation.column].definition.name.as_str());
    let id = referenced.map_or(Some("ownerid"), |table| table.definition.primary_id.as_deref());
    let delete = match relation.on_delete {
        DeleteBehavior::RemoveLink => "RemoveLink",
        DeleteBehavior::Restrict => "Restrict",
        DeleteBehavior::Cascade => "Cascade",
        DeleteBehavior::NoCascade => "NoCascade",
    };
    members(json!({
        "@odata.type": format!("#{NAMESPACE}OneToManyRelationshipMetadata"),
        "MetadataId": relationship_id(&relation.schema_name),
        "HasChanged": null,
        "IsCustomRelationship": system::is_custom(&relation.referencing),
        "IsValidForAdvancedFind": true,
        "SchemaName": relation.schema_name,
        "SecurityTypes": "Append",
        "IsManaged": false,
        "RelationshipType": "OneToManyRelationship",
        "IntroducedVersion": "1.0.0.0",
        "ReferencedAttribute": id,
        "ReferencedEntity": relation.referenced,
        "ReferencingAttribute": attribute,
        "ReferencingEntity": relation.referencing,
        "IsHierarchical": false,
        "EntityKey": null,
        "IsRelationshipAttributeDenormalized": false,
        "ReferencedEntityNavigationPropertyName": relation.collection,
        "ReferencingEntityNavigationPropertyName": relation.navigation,
        "RelationshipBehavior": 1,
        "IsDenormalizedLookup": false,
        "DenormalizedAttributeName": null,
        "AssociatedMenuConfiguration": menu(),
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "CascadeConfiguration": {
            "Assign": "NoCascade", "Delete": delete, "Archive": "RemoveLink", "Merge": "NoCascade",
            "Reparent": "NoCascade", "Share": "NoCascade", "Unshare": "NoCascade", "RollupView": "NoCascade",
        },
        "RelationshipAttributes": [],
    }))
}

pub(super) fn many_to_many(intersect: &Table, definition: &ManyToManyDefinition) -> Members {
    let menu = menu();
    let [first, second] = &definition.sides;
    members(json!({
        "@odata.type": format!("#{NAMESPACE}ManyToManyRelationshipMetadata"),
        "MetadataId": relationship_id(&definition.name),
        "HasChanged": null,
        "IsCustomRelationship": system::is_custom(&definition.name),
        "IsValidForAdvancedFind": true,
        "SchemaName": definition.name,
        "SecurityTypes": "None",
        "IsManaged": false,
        "RelationshipType": "ManyToManyRelationship",
        "IntroducedVersion": "1.0.0.0",
        "Entity1LogicalName": first.table,
        "Entity2LogicalName": second.table,
        "IntersectEntityName": intersect.name(),
        "Entity1IntersectAttribute": first.column,
        "Entity2IntersectAttribute": second.column,
        "Entity1NavigationPropertyName": first.navigation_property,
        "Entity2NavigationPropertyName": second.navigation_property,
        "IsCustomizable": managed(true, true, "iscustomizable"),
        "Entity1AssociatedMenuConfiguration": menu,
        "Entity2AssociatedMenuConfiguration": menu,
    }))
}

fn menu() -> Value {
    json!({
        "Behavior": "UseCollectionName", "Group": "Details", "Order": 10_000, "IsCustomizable": true, "Icon": null,
        "ViewId": "00000000-0000-0000-0000-000000000000", "AvailableOffline": true, "MenuId": null, "QueryApi": null,
        "Label": label_or_none(None),
    })
}
