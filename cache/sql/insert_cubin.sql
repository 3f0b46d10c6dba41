INSERT INTO cubins (sha256, image) VALUES (:sha256, :image) ON CONFLICT DO NOTHING;
