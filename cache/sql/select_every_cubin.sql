SELECT sha256, image FROM cubins;
