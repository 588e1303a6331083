"""What must hold of the AWS stack: rules that know neither Pulumi's SDK nor AWS."""
