UPDATE runs SET copy_gbps = :copy_gbps, mma_tflops = :mma_tflops WHERE id = :run_id;
