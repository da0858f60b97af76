-- What a registration of a schema may say beyond its definition (seed 004).
alter table schemas add column provider_id text not null default '', add column required_fields text[] not null default '{}';
