INSERT INTO main.devices ({own})
SELECT {source} FROM source.devices AS s WHERE true
ON CONFLICT (name, sm, sm_count) DO UPDATE SET {newer};

INSERT INTO temp.device_map (source_id, id)
SELECT s.id, here.id
FROM source.devices AS s JOIN main.devices AS here USING (name, sm, sm_count);
